-- Takes ban records over that were kept elsewhere: of what is there and what comes, whatever is stricter stays.
--
-- KEYS  ban records
-- ARGV  doubles in one string: for each record the end of its ban, its rank, and the moment at which its refusals will
--       be forgotten, as milliseconds and ticks, or 0 0
-- Back  how many were written
--
-- A rank is that at the end of its ban and falls by one an hour; so the rank of a ban that ended earlier is taken as of
-- the end that stays. Taking the same record over again changes nothing.
local function ranked(rank, from, to) return math.max(rank - math.floor((to - from) / 3600000), 0) end

local at, written = 1, 0
for i = 1, #KEYS do
  local untl, rank, ms, part
  untl, rank, ms, part, at = struct.unpack('<dddd', ARGV[1], at)
  local held = redis.call('GET', KEYS[i])
  local denials = '-'
  if held then
    local ends, known, refusals = string.match(held, '^(%d+) (%d+) (.*)$')
    ends, known = tonumber(ends), tonumber(known)
    local last = math.max(ends, untl)
    rank = math.max(ranked(rank, untl, last), ranked(known, ends, last))
    untl, denials = last, refusals
  end
  if ms > 0 and later(ms, part, denials ~= '-' and denials) then denials = text(ms, part) end
  local new = untl .. ' ' .. rank .. ' ' .. denials
  local forgotten = 0
  if denials ~= '-' then forgotten = moment_of(denials) - now + 1 end
  local life = math.max(untl - now + rank * 3600000, forgotten)
  if life > 0 and new ~= held then
    redis.call('SET', KEYS[i], new, 'PX', life + 1)
    written = written + 1
  end
end
return written
