namespace Lightway.Protocol

/// What a server does about an encoding request.
type EncodingVerdict =
    /// Nothing: a later request came first.
    | Ignore = 0
    /// Answers that encoding is off.
    | Refuse = 1
    /// Does as asked, and answers so.
    | Agree = 2

/// Whether one end of a connection sends its packets through its codec, as the client asks (EncodingRequest) and the server
/// answers (EncodingResponse). What comes is decoded whatever this says.
[<Struct>]
type EncodingState =
    private
        { Latest: uint64 // id of the last request, sent or agreed to
          Asked: bool // what that request asked for
          On: bool
          At: int64<ms>
          Repeats: int }

    /// Packets to the peer are encoded.
    member this.IsOn: bool = this.On

    /// Id of the client's last request.
    member this.Id: uint64 = this.Latest

    /// What the client's last request asked for.
    member this.Enable: bool = this.Asked

    /// When `InsideEncoding.timer` is due, `Time.Never` for never.
    member this.RepeatAt: int64<ms> = this.At

/// Laws: encoding is on at an end exactly if the newest request that it knows the answer of asked for it and was granted;
/// a request is sent six times at most, 0, 0.5, 1.5, 3, 5 and 7.5 s after it was made; an answer to another request than
/// the newest, or to one that was answered or given up, changes nothing.
[<RequireQualifiedAccess>]
module InsideEncoding =
    /// Wait before the first repetition; the n-th waits n times as long.
    [<Literal>]
    let private RepeatMs = 500L<ms>

    [<Literal>]
    let private MaxRepeats = 5

    /// Before any request: off.
    let create: EncodingState =
        { Latest = 0UL
          Asked = false
          On = false
          At = Time.Never
          Repeats = 0 }

    /// Client: asks for encoding to be on or off; replaces a request that waits for its answer. Send `Id` and `Enable`.
    let request (state: EncodingState, enable: bool, now: int64<ms>) : EncodingState =
        { state with
            Latest = state.Latest + 1UL
            Asked = enable
            At = now + RepeatMs
            Repeats = 0 }

    /// Client: call at `RepeatAt`, or later; earlier it changes nothing. True: send `Id` and `Enable` again.
    let timer (state: EncodingState, now: int64<ms>) : struct (EncodingState * bool) =
        if now < state.At || state.At = Time.Never then
            struct (state, false)
        elif state.Repeats = MaxRepeats then
            struct ({ state with At = Time.Never }, false)
        else
            let repeats = state.Repeats + 1

            struct ({ state with
                        Repeats = repeats
                        At = now + RepeatMs * int64 (repeats + 1) },
                    true)

    /// Client: an answer came.
    let answered (state: EncodingState, id: uint64, enable: bool) : EncodingState =
        if state.At = Time.Never || id <> state.Latest then
            state
        else
            { state with
                On = enable
                At = Time.Never }

    /// Server: a request came. `mayEncode`: the peer is allowed to.
    let requested
        (state: EncodingState, id: uint64, enable: bool, mayEncode: bool)
        : struct (EncodingState * EncodingVerdict) =
        if not mayEncode then
            struct (state, EncodingVerdict.Refuse)
        elif id < state.Latest then
            struct (state, EncodingVerdict.Ignore)
        else
            struct ({ state with
                        Latest = id
                        Asked = enable
                        On = enable },
                    EncodingVerdict.Agree)
