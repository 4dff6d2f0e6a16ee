-- Changes the progress of a view, provided that it is as the caller read it.
--
-- KEYS  epoch, progress
-- ARGV  epoch expected, run id of the server expected,
--       per change three: field, value expected (empty: none), new value (empty: none)
-- Returns 1; or, with nothing changed, 0: a field has another value; -1: another serving plan is published;
-- -2: the server is another process. A server that was restarted, or took over from another server, may lack rows that
-- the other server acknowledged. So rows that were written to the other server are not recorded.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
if string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') ~= ARGV[2] then
  return -2
end
for i = 3, #ARGV, 3 do
  if (redis.call('HGET', KEYS[2], ARGV[i]) or '') ~= ARGV[i + 1] then
    return 0
  end
end
for i = 3, #ARGV, 3 do
  if ARGV[i + 2] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
  end
end
return 1
