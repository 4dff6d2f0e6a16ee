-- Writes the epoch of a plan into buckets that publish.lua could not name, and marks their fences. Before the plan is
-- published, the caller only marks the fences of new generations, which no plan names yet. Starts with marks.lua.
--
-- KEYS  epoch of each bucket, then per mark: see marks.lua
-- ARGV  new epoch; empty: the epochs stay
--       number of epochs, run ids of the servers that are expected (empty: any), bytes of an epoch
--       per bucket: the epoch that is expected (empty: none)
--       per mark: see marks.lua
-- Returns 1; or, with nothing changed, 0: a bucket has another epoch; -2: the server is another process.
local epochs, bytes = tonumber(ARGV[2]), tonumber(ARGV[4])
for i = 1, epochs do
  if text(KEYS[i], bytes) ~= ARGV[4 + i] then
    return 0
  end
end
if is_other_server(ARGV[3]) then
  return -2
end
if ARGV[1] ~= '' then
  for i = 1, epochs do
    redis.call('SET', KEYS[i], ARGV[1])
  end
end
set_marks(epochs + 1, 5 + epochs)
return 1
