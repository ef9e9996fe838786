"""The scripted provider: a model that replies from a script, over five wire protocols.

    script                    the turns of one session, with call ids and think times
    protocols                 the body of each reply, complete or streamed, by protocol
    registration              a script as the message that registers a session
    sessions, responses       sessions on the server; the bytes of each response
    respx_mock                plays scripts in this process, without sockets
    loopback                  starts a server process and controls it
    certificate               a certificate authority for TLS

`server` is that process. It runs on `reactor`, an event loop. `listeners` accept connections; a
`channel` carries their bytes, through `delay` and `tls` if a scenario needs them.
`http1_handler` (with `http1_parser`) and `http2_handler` implement HTTP. `control` defines the
messages between the two processes. The server imports little beyond the standard library, so
it starts quickly.
"""
