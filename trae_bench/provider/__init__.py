"""The scripted model: what to answer (`script`), its bytes (`wire`), and who says it.

`loopback` is the parent's side of a server in a process of its own; `server` is that process,
on `reactor` (its event loop) and `http1` (the requests it reads); `control` is what the two say
to each other. All that the process imports is of the standard library's light end, so that it
is up quickly.
"""
