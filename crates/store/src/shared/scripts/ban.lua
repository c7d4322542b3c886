-- Bans by hand, for at most an hour. What led to earlier bans stays known.
--
-- KEYS  a ban record
-- ARGV  milliseconds
-- Back  the store's milliseconds, then the end of the ban
local untl, rank, denials = 0, 0, '-'
local text = redis.call('GET', KEYS[1])
if text then
  untl, rank, denials = string.match(text, '^(%d+) (%d+) (.*)$')
  untl, rank = tonumber(untl), tonumber(rank)
  if now > untl then rank = math.max(rank - math.floor((now - untl) / 3600000), 0) end
end
untl = now + math.min(tonumber(ARGV[1]), 3600000)
-- Refusals are forgotten in ten minutes, an hour of rank each hour.
redis.call('SET', KEYS[1], untl .. ' ' .. rank .. ' ' .. denials, 'PX', untl - now + rank * 3600000 + 600001)
return { now, untl }
