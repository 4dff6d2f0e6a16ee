-- Writes one view's segment of many rows, each unless the stored one is newer. One call is atomic: no reader sees half.
--
-- KEYS  epoch, n row keys[, n keys of variable values][, n row keys that the rows are copied from]
-- ARGV  epoch expected, empty row, offset of the segment, n segments in one string, n,
--       microseconds after the event time at which a key may go (0: never), bytes of the times at the start of a segment:
--       8 or, with a creation time, 16, offset of the segment in the rows that are copied[, n variable values]
-- A value that is no row of the layout (another type, or length) is replaced; its other views have no value then.
-- A row that is copied is not written when the one that it was copied from holds that view's segment no more.
-- Returns how many rows were older than the stored ones or are gone there, or -1 when the epoch is another: the serving
-- plan has changed since the caller read it, and nothing was written.
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local empty, offset, segments, n, keep_us = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local times = tonumber(ARGV[7])
local size = #segments / n
local copied_offset = tonumber(ARGV[8])
local with_variables = #ARGV > 8
local last_key = with_variables and 2 * n + 1 or n + 1
local is_copy = #KEYS > last_key
local absent = string.rep('\0', 8)
local before, after = string.sub(empty, 1, offset), string.sub(empty, offset + size + 1)
local unpack = struct.unpack

-- Lua's < on strings follows the server's locale, and its numbers hold 53 bits: times are compared by halves.
local function is_older(new, stored)
  local a, b = unpack('>I4I4', new)
  local e, f = unpack('>I4I4', stored)
  if a ~= e then return a < e end
  if b ~= f then return b < f end
  if times == 8 then return false end
  local c, d = unpack('>I4I4', new, 9)
  local g, h = unpack('>I4I4', stored, 9)
  if c ~= g then return c < g end
  return d < h
end

local function is_gone(key)
  local event_ts = redis.pcall('GETRANGE', key, copied_offset, copied_offset + 7)
  return type(event_ts) ~= 'string' or #event_ts ~= 8 or event_ts == absent
end

local function keep(key, segment)
  local high, low = unpack('>I4I4', segment)
  local milliseconds = ((high - 2147483648) * 4294967296 + low + keep_us) / 1000
  local at = string.format('%.0f', milliseconds)
  if redis.call('PTTL', key) == -1 then
    redis.call('PEXPIREAT', key, at)
  else
    redis.call('PEXPIREAT', key, at, 'GT')
  end
end

local older = 0
for i = 1, n do
  local key = KEYS[i + 1]
  local segment = string.sub(segments, (i - 1) * size + 1, i * size)
  local stored = redis.pcall('GETRANGE', key, offset, offset + times - 1)
  local written = true
  if is_copy and is_gone(KEYS[last_key + i]) then
    older = older + 1
    written = false
  elseif type(stored) ~= 'string' or redis.call('STRLEN', key) ~= #empty then
    redis.call('SET', key, before .. segment .. after)
  elseif is_older(segment, stored) then
    older = older + 1
    written = false
  else
    redis.call('SETRANGE', key, offset, segment)
  end
  if written then
    if with_variables then
      redis.call('SET', KEYS[n + 1 + i], ARGV[8 + i], 'KEEPTTL')
    end
    if keep_us > 0 then
      keep(key, segment)
      if with_variables then
        keep(KEYS[n + 1 + i], segment)
      end
    end
  end
end
return older
