-- Merges deltas into the tiles of many entities and moves the fences, in one call: no crash can separate the two.
--
-- KEYS  epoch, fences, merges, one key per entity
-- ARGV  epoch expected
--       fences: `field expected next …`, separated by spaces; expected `-`: none yet
--       fingerprint of the layout
--       slots of an empty value, all zero
--       format of a record, as struct reads it (see aggregates/tiles.py)
--       rings, each `slots kind:size kind:size:argument …|format of a tile;`, size being how many values the state unpacks
--       to, argument a text for the merge of the kind, if it needs one
--       the number (from 1) of the ring with the longest reach
--       per entity how many of the records are its own, separated by spaces
--       the records, one after the other
--       milliseconds after an entity's newest event at which its key may go (0: never)
--       mark of the generation (empty: of a plan that names none)
--       bytes of a value
-- Returns the numbers (from 1) of the records that came too late for the ring with the longest reach; or, with nothing
-- merged, -1: another serving plan is published; -2: a fence is not where the caller expects it; -3: the fences are not
-- those of the generation; -3 - i: the value of entity i is not of this layout. Everything that can fail is checked before
-- the first write, since Redis keeps what a script wrote before it failed.
--
-- Fences that are lost would let every event be merged again. So they hold the generation's mark, and how many merges
-- there were, which a key beside them holds too: fences that come from an older copy have another number.
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local unpack_bytes, pack_bytes = struct.unpack, struct.pack
local sub, floor = string.sub, math.floor

local marks = redis.pcall('HMGET', KEYS[2], 'born', 'merges', 'late')
local late = tonumber(marks[3] or 0)
if marks.err or not late then
  return -3
end
local moves = {}
if ARGV[11] ~= '' then
  if marks[1] ~= ARGV[11] or not marks[2] or redis.pcall('GET', KEYS[3]) ~= marks[2] then
    return -3
  end
  moves = { 'merges', string.format('%.0f', tonumber(marks[2]) + 1) }
end
for field, expected, next_offset in string.gmatch(ARGV[2], '(%S+) (%S+) (%S+)') do
  if (redis.call('HGET', KEYS[2], field) or '-') ~= expected then
    return -2
  end
  moves[#moves + 1], moves[#moves + 2] = field, next_offset
end

local fingerprint, empty_slots, format = ARGV[3], ARGV[4], ARGV[5]
local record_size = struct.size(format)
local prefix = #fingerprint
local head_end = prefix + record_size - 1

-- The merges of states, `merge_of.<kind>(a, i, b, size, argument)`: merge the state that begins at b[i] into the one
-- that begins at a[i]; `size` is its number of values. They stand in the files of feature_store/functions/; merge_script.py puts those of
-- the view here.
local merge_of = {}
-- {merges}

-- The rings: the place of each in an unpacked record, the places of its slots in the value, the merges of its parts.
local rings = {}
local value_at, slot_at = 2, prefix + record_size
for ring, tile_format in string.gmatch(ARGV[6], '([^;|]+)|([^;]+)') do
  local slots, parts = string.match(ring, '^(%d+)(.*)$')
  local merges, at = {}, value_at + 1
  for op, size, argument in string.gmatch(parts, '([^%s:]+):(%d+):?(%S*)') do
    merges[#merges + 1] = { merge_of[op], at, tonumber(size), argument }
    at = at + tonumber(size)
  end
  local size = struct.size(tile_format)
  rings[#rings + 1] = {
    at = value_at, last = at - 1, slots = tonumber(slots), merges = merges, slot_at = slot_at, size = size, format = tile_format,
  }
  value_at, slot_at = at, slot_at + tonumber(slots) * size
end
local longest = tonumber(ARGV[7])

-- First everything that can fail.
local heads, value_size = {}, tonumber(ARGV[12])
for i = 4, #KEYS do
  local head = redis.pcall('GETRANGE', KEYS[i], 0, head_end)
  if type(head) ~= 'string' then
    return -i
  end
  if #head > 0 and (sub(head, 1, prefix) ~= fingerprint or redis.call('STRLEN', KEYS[i]) ~= value_size) then
    return -i
  end
  heads[i - 3] = head
end

local refused = {}
local records, record, at = ARGV[9], 0, 1

local function store_tile(key, ring, values, i, j)
  local slot = (values[i] - 1) % ring.slots
  redis.call('SETRANGE', key, ring.slot_at + slot * ring.size, pack_bytes(ring.format, unpack(values, i, j)))
end

local function merge_parts(ring, a, b)
  local merges = ring.merges
  for k = 1, #merges do
    local part = merges[k]
    part[1](a, part[2], b, part[3], part[4])
  end
end

-- Into a tile before the head's.
local function merge_late(key, ring, delta)
  local number, i = delta[ring.at], ring.at
  local slot = ring.slot_at + (number - 1) % ring.slots * ring.size
  local stored = { unpack_bytes(ring.format, redis.call('GETRANGE', key, slot, slot + ring.size - 1)) }
  if stored[1] ~= number then
    store_tile(key, ring, delta, i, ring.last)
    return
  end
  -- The stored tile begins at 1, the delta's at `i`: shift it into a table that both share.
  local shifted = {}
  for k = i, ring.last do
    shifted[k] = stored[k - i + 1]
  end
  merge_parts(ring, shifted, delta)
  store_tile(key, ring, shifted, i, ring.last)
end

local function merge_ring(key, ring, head, delta, r)
  local i = ring.at
  local number, newest = delta[i], head[i]
  if number == newest then
    if number ~= 0 then
      merge_parts(ring, head, delta)
    end
  elseif number > newest then
    if newest ~= 0 and number - newest <= ring.slots then
      store_tile(key, ring, head, i, ring.last)
    end
    for k = i, ring.last do
      head[k] = delta[k]
    end
  elseif number ~= 0 then
    if newest - number <= ring.slots then
      merge_late(key, ring, delta)
    elseif r == longest then
      refused[#refused + 1] = record
    end
  end
end

local keep_ms = tonumber(ARGV[10])
local entity = 0
for count in string.gmatch(ARGV[8], '%d+') do
  entity = entity + 1
  local key, stored = KEYS[entity + 3], heads[entity]
  local first, head = 1, nil
  if #stored > 0 then
    head = { unpack_bytes(format, stored, prefix + 1) }
  else
    redis.call('SET', key, fingerprint .. sub(records, at, at + record_size - 1) .. empty_slots)
    head = { unpack_bytes(format, records, at) }
    first, record, at = 2, record + 1, at + record_size
  end
  for _ = first, tonumber(count) do
    record = record + 1
    local delta = { unpack_bytes(format, records, at) }
    at = at + record_size
    if delta[1] > head[1] then
      head[1] = delta[1]
    end
    for r = 1, #rings do
      merge_ring(key, rings[r], head, delta, r)
    end
  end
  if first <= tonumber(count) then
    redis.call('SETRANGE', key, prefix, pack_bytes(format, unpack(head, 1, value_at - 1)))
  end
  if keep_ms > 0 then
    redis.call('PEXPIREAT', key, string.format('%.0f', floor(head[1] / 1000) + keep_ms))
  end
end

if #refused > 0 then
  moves[#moves + 1], moves[#moves + 2] = 'late', string.format('%.0f', late + #refused)
end
if #moves > 0 then
  redis.call('HSET', KEYS[2], unpack(moves))
end
if ARGV[11] ~= '' then
  redis.call('SET', KEYS[3], moves[2])
end
return refused
