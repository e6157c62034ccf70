"""From a Dockerfile to an image: text → typed instructions → graph of steps → layers → image.

dockerfile/   text to typed instructions, with source spans
plan          instructions and arguments to a graph of steps; pure
cache_key     what makes two steps the same; pure
solve         walks the graph in parallel and causes the effects in steps/
outputs       the solved graph to an image in the store
progress      the one stream of events that views render
"""
