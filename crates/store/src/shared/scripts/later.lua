#!lua
-- Moments as text, as a bucket keeps them (gcra.lua): "<ms>", or "<ms>:<ticks>" with a fraction of a millisecond.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + (clock[2] - clock[2] % 1000) / 1000

local function text(ms, part)
  if part == 0 then return ms .. '' end
  return ms .. ':' .. part
end

-- Its milliseconds and ticks.
local function moment_of(held)
  local ms = tonumber(held)
  if ms then return ms, 0 end
  local colon = string.find(held, ':', 1, true)
  return tonumber(string.sub(held, 1, colon - 1)), tonumber(string.sub(held, colon + 1))
end

-- Whether a moment is after the one that is held, if any.
local function later(ms, part, held)
  if not held then return true end
  local known, ticks = moment_of(held)
  return ms > known or ms == known and part > ticks
end
