#!lua
-- What a bucket holds.
--
-- KEYS  a bucket
-- Back  its text or nothing
return redis.call('GET', KEYS[1])
