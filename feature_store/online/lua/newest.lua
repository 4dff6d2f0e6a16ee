-- The newest of the event times that some values hold, at some places in them.
--
-- KEYS  values
-- ARGV  how times are stored: `>I4I4`, the biased 64-bit numbers of rows, or `<d`, the doubles of tiles; then where
--       Returns, per place, the greatest as it is stored: 8 bytes, all zero when no value has one there.
local form, unpack = ARGV[1], struct.unpack
local absent = string.rep('\0', 8)
local newest = {}
for i = 2, #ARGV do
  local start = tonumber(ARGV[i])
  local best, high, low = absent, 0, 0
  for _, key in ipairs(KEYS) do
    local stored = redis.call('GETRANGE', key, start, start + 7)
    if #stored == 8 then
      -- Lua's < on strings follows the server's locale, and its numbers hold 53 bits: two numbers of 32 are compared.
      local a, b = unpack(form, stored)
      if form == '<d' then b = 0 end
      if a > high or (a == high and b > low) then best, high, low = stored, a, b end
    end
  end
  newest[i - 1] = best
end
return newest
