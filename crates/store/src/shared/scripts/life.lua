-- The sequence's text with the server's replication id before it: random, and another one after each start, promotion and
-- demotion. With the birth in the text it tells one life of the store from another. It is read in the same step as the
-- text, so nothing comes between.
local function living(text)
  local info = redis.call('INFO', 'replication')
  local _, last = string.find(info, 'master_replid:', 1, true)
  return string.sub(info, last + 1, last + 40) .. ' ' .. text
end
