-- Tells the revocation sequence.
--
-- KEYS  the sequence
-- Back  its text with the life before it, or nothing
local held = redis.call('GET', KEYS[1])
return held and living(held)
