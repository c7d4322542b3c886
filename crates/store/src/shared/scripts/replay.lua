-- Charges without asking what was admitted while the store was away: forward only, at most to a full bucket.
--
-- KEYS  buckets
-- ARGV  doubles in one string: for each bucket drain, capacity, ticks
-- Back  the store's milliseconds
local at = 1
for i = 1, #KEYS do
  local drain, capacity, ticks
  drain, capacity, ticks, at = struct.unpack('<ddd', ARGV[1], at)
  local before = level(redis.call('GET', KEYS[i]), drain, capacity)
  keep(KEYS[i], math.min(before + ticks, capacity), drain)
end
return now
