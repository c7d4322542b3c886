-- Raises the revocation sequence, never lowers it. Allowed with the memory full: it is one small key, and a revocation
-- must not wait for room.
--
-- KEYS  the sequence, as "<birth> <number>"
-- ARGV  a number
-- Back  the text it has now, with the life before it
--
-- Birth is when the key was made: another one when the store has lost what it held.
local held = redis.call('GET', KEYS[1])
local birth, number
if held then
  birth, number = string.match(held, '^(%d+) (%d+)$')
  if tonumber(number) >= tonumber(ARGV[1]) then return living(held) end
else
  local clock = redis.call('TIME')
  birth = string.format('%.0f', clock[1] * 1000000 + clock[2])
end
held = birth .. ' ' .. ARGV[1]
redis.call('SET', KEYS[1], held)
return living(held)
