from a
ruun x
