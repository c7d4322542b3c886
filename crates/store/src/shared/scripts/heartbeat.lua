#!lua flags=allow-oom
-- Says that a node lives, and counts those that do, by the store's clock.
--
-- KEYS  the set of nodes
-- ARGV  the node, and for how many milliseconds to believe it; 0 says that it leaves
-- Back  how many nodes live, then the store's milliseconds
local clock = redis.call('TIME')
local now = clock[1] * 1000 + (clock[2] - clock[2] % 1000) / 1000
local life = tonumber(ARGV[2])
if life == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - life)
  -- Written before the clock was set back.
  redis.call('ZREMRANGEBYSCORE', KEYS[1], now + life, '+inf')
  redis.call('PEXPIRE', KEYS[1], life)
end
return { redis.call('ZCARD', KEYS[1]), now }
