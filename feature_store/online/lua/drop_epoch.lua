-- Deletes a bucket's epoch, unless another plan was published meanwhile.
--
-- KEYS  epoch
-- ARGV  epoch that is expected
-- Returns the number of keys that were deleted.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
