"""The scripted model: what to answer, its bytes, and who says it.

    script                  the turns of one session, ids and think times included
    wire, streams           each turn as the body of a reply, whole or in events, by protocol
    replies                 both, with delays and faults, as a server has to know them
    answers, sessions       what goes out for one request; who is asked for which
    respx_mock              says it in this process, without a socket
    loopback                the parent's side of a server in a process of its own
    certificate             whom the clients of that server have to trust

`server` is that process: on `reactor`, its event loop, `doors` let clients in; a `channel`
carries their bytes, over a line with a `delay` and in `tls` where a scenario asks for it;
`http1_talk` (which reads with `http1`) and `http2_talk` understand them. `control` is what the
two processes say to each other. What the server imports at its start is of the standard
library's light end, so that it is up quickly.
"""
