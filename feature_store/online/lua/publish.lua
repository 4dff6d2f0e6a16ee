-- Publishes a serving plan, in the buckets that one script may name together with the plan, and marks the fences of its
-- stream views, unless another plan was published since the caller looked. Starts with marks.lua.
--
-- KEYS  plan, epoch of each bucket, then per mark: see marks.lua
-- ARGV  epoch of bucket 0 that is expected (empty: none)
--       SHA-1 of the plan document that is expected (of the empty string: none); empty: any document
--       plan document, new epoch, number of epochs, run ids of the servers that are expected (empty: any)
--       the last byte of a document that readers read: nothing beyond it counts, nor beyond an epoch's length
--       per mark: see marks.lua
-- Returns 1; or, with nothing changed, 0: another plan is published; -2: the server is another process, which may lack
-- rows of the plan that the other had acknowledged.
local document = text(KEYS[1], ARGV[7])
if text(KEYS[2], #ARGV[4]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '' then
  if document == '' then
    return 0
  end
elseif redis.sha1hex(document) ~= ARGV[2] then
  return 0
end
if is_other_server(ARGV[6]) then
  return -2
end
local epochs = tonumber(ARGV[5])
redis.call('SET', KEYS[1], ARGV[3])
for i = 2, epochs + 1 do
  redis.call('SET', KEYS[i], ARGV[4])
end
set_marks(epochs + 2, 8)
return 1
