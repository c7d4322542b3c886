-- Counts refusals that were not the answer of a bucket here.
--
-- KEYS  a ban record
-- ARGV  doubles in one string: refusals, then the ban policy (drain, unit, capacity, first)
-- Back  the store's milliseconds, then the end of the ban that began or 0
local refusals, drain, unit, capacity, first = struct.unpack('<ddddd', ARGV[1])
local text, life, began = refused(redis.call('GET', KEYS[1]), refusals, drain, unit, capacity, first)
redis.call('SET', KEYS[1], text, 'PX', life)
return { now, began or 0 }
