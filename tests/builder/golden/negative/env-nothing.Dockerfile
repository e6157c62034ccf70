from a
env
