#!lua
-- Ends a ban and forgets what led to it.
--
-- KEYS  a ban record
return redis.call('DEL', KEYS[1])
