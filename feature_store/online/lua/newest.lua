-- Finds the newest of the event times in some values, for each of some places in a value.
--
-- KEYS  values
-- ARGV  format of a stored time: `>I4I4`, the biased 64-bit numbers of rows, or `<d`, the doubles of tiles; then the
--       places
-- Returns, per place, the greatest time as it is stored: 8 bytes, all zero when no value has a time there.
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
