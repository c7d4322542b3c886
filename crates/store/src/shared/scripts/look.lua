#!lua
-- Looks at buckets and ban records.
--
-- KEYS  any of them
-- Back  the store's milliseconds, then the text of each or nothing
local clock = redis.call('TIME')
local back = redis.call('MGET', unpack(KEYS))
table.insert(back, 1, clock[1] * 1000 + (clock[2] - clock[2] % 1000) / 1000)
return back
