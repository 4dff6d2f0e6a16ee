-- Publishes a serving plan and marks the fences of its stream views, unless another was published since the caller looked.
--
-- KEYS  plan, epoch of each bucket, then per mark: fences, merges (see merge.lua)
-- ARGV  epoch of bucket 0 that is expected (empty: none)
--       SHA-1 of the plan document that is expected (of the empty string: none); empty: any document
--       plan document, new epoch, number of buckets, run id of the server that is expected (empty: any)
--       the last byte of a document that readers read: nothing beyond it counts, nor beyond an epoch's length
--       per mark: how, tag, and the fields that describe a generation that is served: layout, start (layout empty: it is
--       not served)
-- How a mark is made: `new`: whatever is there goes; `adopt`: fences without a mark get one; `keep`: there should be one.
-- Returns 1; or, with nothing changed, 0: something else is published; -2: the server is another process, which may lack
-- rows of the plan that the other had acknowledged.
local function text(key, last)
  local value = redis.pcall('GETRANGE', key, 0, last)
  return type(value) == 'string' and value or ''
end

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
if ARGV[6] ~= '' and string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') ~= ARGV[6] then
  return -2
end
local buckets = tonumber(ARGV[5])
redis.call('SET', KEYS[1], ARGV[3])
for i = 2, buckets + 1 do
  redis.call('SET', KEYS[i], ARGV[4])
end
local at = 8
for i = buckets + 2, #KEYS, 2 do
  local fences, merges = KEYS[i], KEYS[i + 1]
  local how, tag, layout, start = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  at = at + 4
  if how == 'new' then
    redis.call('DEL', fences)
  end
  if how ~= 'keep' then
    redis.call('HSET', fences, 'born', tag, 'merges', 0)
    redis.call('SET', merges, 0)
  end
  if layout ~= '' and redis.pcall('HGET', fences, 'born') == tag then
    redis.call('HSET', fences, 'layout', layout, 'start', start)
  end
end
return 1
