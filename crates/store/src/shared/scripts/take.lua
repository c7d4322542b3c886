-- Takes from every limit or from none, unless somebody is banned.
--
-- KEYS  `limits` buckets, `groups` ban records, and the revocation sequence when it is wanted
-- ARGV  doubles in one string: limits, groups, then the ban policy (drain, unit, capacity, first; drain 0: no bans),
--       then for each limit drain, unit, capacity, least, most (ticks) and the place of its group
-- Back  what each key held before (the sequence with the store's life before it), then the store's milliseconds, then 0 taken, 1 over a limit, 2 banned, 3 a ban
--       began with this call; then until when, and the place of the group that is banned
--
-- `most` above `least` is a lease: as many whole units as there is room for. A script runs alone, so nothing comes
-- between the reading and the writing. A refused call writes nothing, but for two things: the refusal in the ban record,
-- and a bucket that a clock set back has left too full.
local limits, groups, ban_drain, ban_unit, ban_capacity, ban_first, start = struct.unpack('<dddddd', ARGV[1])
local seen = redis.call('MGET', unpack(KEYS))
local size = #KEYS
if size > limits + groups and seen[size] then seen[size] = living(seen[size]) end

for group = limits + 1, limits + groups do
  if seen[group] then
    local text = seen[group]
    local untl = tonumber(string.sub(text, 1, string.find(text, ' ', 1, true) - 1))
    if untl > now then
      if untl > now + 3600000 then
        -- The clock was set back: no ban is longer than an hour.
        untl = now + 3600000
        local rest = string.sub(text, string.find(text, ' ', 1, true))
        redis.call('SET', KEYS[group], untl .. rest, 'PX', 120000000)
      end
      seen[size + 1], seen[size + 2], seen[size + 3], seen[size + 4] = now, 2, untl, group - limits
      return seen
    end
  end
end

local after, drains, violated = {}, {}, false
local at = start
for i = 1, limits do
  local drain, unit, capacity, least, most, group
  drain, unit, capacity, least, most, group, at = struct.unpack('<dddddd', ARGV[1], at)
  local before = level(seen[i], drain, capacity)
  local free = capacity - before
  if least > free then
    violated = group
    break
  end
  if most > free then most = free - free % unit end
  after[i], drains[i] = before + most, drain
end

if not violated then
  for i = 1, limits do
    if after[i] > 0 then
      local text, life = moment(after[i], drains[i])
      redis.call('SET', KEYS[i], text, 'PX', life)
    end
  end
  seen[size + 1], seen[size + 2], seen[size + 3], seen[size + 4] = now, 0, 0, 0
  return seen
end

at = start
for i = 1, limits do
  local drain, _, capacity = struct.unpack('<ddd', ARGV[1], at)
  local ticks, mend = level(seen[i], drain, capacity)
  if mend then keep(KEYS[i], ticks, drain) end
  at = at + 48
end
seen[size + 1], seen[size + 2], seen[size + 3], seen[size + 4] = now, 1, 0, violated
if ban_drain > 0 and violated > 0 then
  local place = limits + violated
  local began = refused(KEYS[place], seen[place], 1, ban_drain, ban_unit, ban_capacity, ban_first)
  if began then seen[size + 2], seen[size + 3] = 3, began end
end
return seen
