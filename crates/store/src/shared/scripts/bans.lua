-- Ban records, exactly as the hot state in memory keeps them (state/bans.rs). As text: "<until> <level> <refusals>",
-- where refusals is the bucket of those not forgotten yet, or "-".
-- What is written after so many refusals at once, for how many milliseconds, and the end of the ban when they were too many.
local function refused(text, refusals, drain, unit, capacity, first)
  local untl, rank, denials = 0, 0, false
  if text then
    untl, rank, denials = string.match(text, '^(%d+) (%d+) (.*)$')
    untl, rank = tonumber(untl), tonumber(rank)
    if denials == '-' then denials = false end
    -- The clock was set back: no ban is longer than an hour. (The bucket mends itself.)
    if untl > now + 3600000 then untl = now + 3600000 end
  end
  local ticks = level(denials, drain, capacity)
  local room = (capacity - ticks - (capacity - ticks) % unit) / unit
  local began, life = false, 0
  if refusals >= room then
    if now > untl then rank = math.max(rank - math.floor((now - untl) / 3600000), 0) end
    untl = now + math.min(first * 2 ^ math.min(rank, 20), 3600000)
    rank = math.min(rank + 1, 32)
    began, denials = untl, '-'
  else
    denials, life = moment(ticks + refusals * unit, drain)
  end
  life = math.max(life, untl - now + rank * 3600000)
  return untl .. ' ' .. rank .. ' ' .. denials, life + 1, began
end
