-- Counts the values that do not have a layout.
--
-- KEYS  values
-- ARGV  fingerprint, bytes of a value
local others = 0
for _, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, #ARGV[1] - 1)
  if head ~= ARGV[1] or redis.call('STRLEN', key) ~= tonumber(ARGV[2]) then
    others = others + 1
  end
end
return others
