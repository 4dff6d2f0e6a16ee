-- Publishes a serving plan, unless another was published since the caller looked.
--
-- KEYS  plan, epoch of bucket 0[, epochs of the other buckets]
-- ARGV  epoch expected (empty: none), plan document, new epoch
-- Returns 1, or 0 when the epoch is another.
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[3])
end
return 1
