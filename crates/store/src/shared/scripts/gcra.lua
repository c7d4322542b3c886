#!lua
-- One bucket, exactly as bartizan-core counts it (limit/gcra.rs). What is kept of a bucket is the moment it will be
-- empty, as text: "<ms>", or "<ms>:<ticks>" with a fraction of a millisecond. No key is an empty bucket.
-- Every number stays below 2^53, where doubles are whole numbers; a quota that could pass it cannot be made.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + (clock[2] - clock[2] % 1000) / 1000
if now > 17523466567679 then now = 17523466567679 end

-- Ticks in the bucket, at most a full burst; and whether it held more than can be true, as after a clock set back.
local function level(tat, drain, capacity)
  if not tat then return 0 end
  local ms, part = tonumber(tat), 0
  if not ms then
    local colon = string.find(tat, ':', 1, true)
    ms, part = tonumber(string.sub(tat, 1, colon - 1)), tonumber(string.sub(tat, colon + 1))
    -- A fraction kept under another quota counts as at most a whole millisecond.
    if part > drain then part = drain end
  end
  if ms < now then return 0 end
  local ticks = (ms - now) * drain + part
  if ticks > capacity then return capacity, true end
  return ticks
end

-- The text that says so many ticks, and the milliseconds after which it says nothing; one more than needed, because the
-- server's own clock of expiry may have read a moment earlier.
local function moment(ticks, drain)
  local part = ticks % drain
  local ahead = (ticks - part) / drain
  if part == 0 then return now + ahead .. '', ahead + 1 end
  return now + ahead .. ':' .. part, ahead + 2
end

local function keep(key, ticks, drain)
  if ticks == 0 then return redis.call('DEL', key) end
  local text, life = moment(ticks, drain)
  redis.call('SET', key, text, 'PX', life)
end
