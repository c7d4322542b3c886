-- Gives back what was taken, never more than is there.
--
-- KEYS  buckets
-- ARGV  doubles in one string: for each bucket drain, capacity, the ticks to give back and the store's milliseconds at
--       which they were all still in the bucket: since then they drain like everything in it, and what has drained by
--       itself must not be given back once more. A moment in the future says that none of them count as drained.
-- Back  the store's milliseconds
local at = 1
for i = 1, #KEYS do
  local drain, capacity, back, since
  drain, capacity, back, since, at = struct.unpack('<dddd', ARGV[1], at)
  if now > since then back = math.max(back - (now - since) * drain, 0) end
  local tat = redis.call('GET', KEYS[i])
  if tat then keep(KEYS[i], math.max(level(tat, drain, capacity) - back, 0), drain) end
end
return now
