-- Several requests, one after another: each takes from every one of its limits or from none, unless somebody is banned.
--
-- KEYS  for each request its buckets and its ban records; at the end the revocation sequence, when it is wanted
-- ARGV  doubles in one string: requests, then the ban policy (drain, unit, capacity, first; drain 0: no bans), then for
--       each request limits, groups, and for each limit drain, unit, capacity, least, most (ticks) and the place of its group
-- Back  the store's milliseconds; for each request what each key held before, then 0 taken, 1 over a limit, 2 banned, 3 a
--       ban began with it; then until when, and the place of the group that is banned; at the end the sequence
--       with the store's life before it
--
-- `most` above `least` is a lease: as many whole units as there is room for. A script runs alone, so nothing comes between
-- the reading and the writing, and a key that several requests name is read and written once. A refused request writes
-- nothing, but for two things: the refusal in the ban record, and a bucket that a clock set back has left too full.
local requests, ban_drain, ban_unit, ban_capacity, ban_first, at = struct.unpack('<ddddd', ARGV[1])
local read = redis.call('MGET', unpack(KEYS))
local held, life = {}, {}
for i = 1, #KEYS do held[KEYS[i]] = read[i] end
local back, size, place = { now }, 1, 0
local after, drains = {}, {}

for _ = 1, requests do
  local limits, groups
  limits, groups, at = struct.unpack('<dd', ARGV[1], at)
  local first, code, untl, who = at, 0, 0, 0
  for i = 1, limits + groups do back[size + i] = held[KEYS[place + i]] end

  for group = 1, groups do
    local name = KEYS[place + limits + group]
    local text = held[name]
    if text then
      local space = string.find(text, ' ', 1, true)
      local ends = tonumber(string.sub(text, 1, space - 1))
      if ends > now then
        if ends > now + 3600000 then
          -- The clock was set back: no ban is longer than an hour.
          ends = now + 3600000
          held[name], life[name] = ends .. string.sub(text, space), 120000000
        end
        code, untl, who = 2, ends, group
        break
      end
    end
  end

  if code == 0 then
    for i = 1, limits do
      local drain, unit, capacity, least, most, group
      drain, unit, capacity, least, most, group, at = struct.unpack('<dddddd', ARGV[1], at)
      local before = level(held[KEYS[place + i]], drain, capacity)
      local free = capacity - before
      if least > free then
        code, who = 1, group
        break
      end
      if most > free then most = free - free % unit end
      after[i], drains[i] = before + most, drain
    end
    if code == 0 then
      for i = 1, limits do
        local name = KEYS[place + i]
        if after[i] > 0 then held[name], life[name] = moment(after[i], drains[i]) end
      end
    else
      for i = 1, limits do
        local name = KEYS[place + i]
        local drain, _, capacity = struct.unpack('<ddd', ARGV[1], first + 48 * (i - 1))
        local ticks, mend = level(held[name], drain, capacity)
        if mend then held[name], life[name] = moment(ticks, drain) end
      end
      if ban_drain > 0 and who > 0 then
        local name = KEYS[place + limits + who]
        local began
        held[name], life[name], began = refused(held[name], 1, ban_drain, ban_unit, ban_capacity, ban_first)
        if began then code, untl = 3, began end
      end
    end
  end

  at, place, size = first + 48 * limits, place + limits + groups, size + limits + groups + 3
  back[size - 2], back[size - 1], back[size] = code, untl, who
end

for name, milliseconds in pairs(life) do redis.call('SET', name, held[name], 'PX', milliseconds) end
if #KEYS > place then
  local text = read[#KEYS]
  back[size + 1] = text and living(text)
end
return back
