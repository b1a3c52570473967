namespace Lightway.Lab.Pests

open System
open System.Diagnostics
open System.Net

/// Who logs in: a local address and a user of its own.
type Member = { Source: IPAddress; User: string }

/// What became of them.
type Arrivals =
    {
        /// Members that have been online.
        Online: int
        /// Until the last of those was.
        Seconds: float
        /// Connections that were begun; as many as there are members if none had to start again.
        Starts: int
    }

/// Clients that all want to log in at once, as after a restart of their server.
[<RequireQualifiedAccess>]
module Rush =
    /// Logs all in, on the calling thread and in its namespace. One that is turned away, or gives up as a client does, starts
    /// again at once, and says nothing to the server about it; so does one that has waited for `patience`. Ends when all have been
    /// online, or when it is over.
    let run
        (target: Target)
        (password: string)
        (members: Member list)
        (patience: TimeSpan)
        (isOver: unit -> bool)
        : Arrivals =
        use crowd = new Crowd(target)
        let members = Array.ofList members
        let clock = Stopwatch.StartNew()
        let hasBeenIn = Array.create members.Length false
        let starts = ref 0
        let seconds = ref 0.0

        let join number =
            starts.Value <- starts.Value + 1
            crowd.Join(members[number].Source, members[number].User, password, false)

        let guests = Array.init members.Length join

        let step () =
            for number in 0 .. members.Length - 1 do
                if guests[number].LoginTime.IsSome then
                    if not hasBeenIn[number] then
                        hasBeenIn[number] <- true
                        seconds.Value <- clock.Elapsed.TotalSeconds
                elif guests[number].Closed.IsSome || guests[number].Age > patience then
                    crowd.Remove guests[number]
                    guests[number] <- join number

            Array.forall id hasBeenIn || isOver ()

        crowd.RunUntil(TimeSpan.MaxValue, step) |> ignore

        { Online = hasBeenIn |> Array.filter id |> Array.length
          Seconds = seconds.Value
          Starts = starts.Value }
