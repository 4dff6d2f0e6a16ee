-- Marks the fences of stream views. The scripts that publish a plan start with this text.
--
-- at_key, at_argument: where the marks start in KEYS and ARGV
-- KEYS  per mark: fences, merges (see merge.lua)
-- ARGV  per mark: how, tag, and the fields that describe a generation that is served: layout, start (layout empty: the
--       generation is not served)
-- How a mark is made: `new`: existing fences are deleted; `adopt`: fences without a mark get a mark; `keep`: the fences
-- should have the mark already.
local function set_marks(at_key, at_argument)
  for i = at_key, #KEYS, 2 do
    local fences, merges = KEYS[i], KEYS[i + 1]
    local how, tag, layout, start = unpack(ARGV, at_argument, at_argument + 3)
    at_argument = at_argument + 4
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
end

-- The text of a key, up to the byte `last`; empty: there is none, or the key holds another type.
local function text(key, last)
  local value = redis.pcall('GETRANGE', key, 0, last)
  return type(value) == 'string' and value or ''
end

-- Whether this server is none of the expected processes. Their run ids are separated by spaces (empty: any).
local function is_other_server(expected)
  return expected ~= '' and not string.find(expected, string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'), 1, true)
end

