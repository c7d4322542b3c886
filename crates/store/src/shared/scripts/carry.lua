-- Takes buckets over that were counted elsewhere: of what is there and what comes, the later moment stays.
--
-- KEYS  buckets
-- ARGV  doubles in one string: for each bucket the moment it will be empty, as milliseconds and ticks
-- Back  how many were written
local at, written = 1, 0
for i = 1, #KEYS do
  local ms, part
  ms, part, at = struct.unpack('<dd', ARGV[1], at)
  if ms >= now and later(ms, part, redis.call('GET', KEYS[i])) then
    redis.call('SET', KEYS[i], text(ms, part), 'PX', ms - now + 2)
    written = written + 1
  end
end
return written
