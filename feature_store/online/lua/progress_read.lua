-- Reads the progress of views: how far they are materialized.
--
-- KEYS  progress of some views, all in one bucket
-- Returns the run id of the server, its clock in microseconds since 1970, then per view its fields and values in turn.
local time = redis.call('TIME')
local answer = { string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'), time[1] .. string.format('%06d', time[2]) }
for i = 1, #KEYS do
  answer[i + 2] = redis.call('HGETALL', KEYS[i])
end
return answer
