/// Every state of one server and two clients whose session ids rotate while the clients move (protocol §2). Datagrams are lost and
/// overtake each other; a repeated one is not a case of its own, since records and Expresslane packets are opened once.
module Lightway.Specs.Search.SessionStates

open Lightway.Protocol
open Lightway.Specs.Search.Explore

/// A datagram of a client, or of the server for a connection.
[<Struct>]
type Datagram =
    {
        /// The client that made it, or the connection that it is for: only that one can open it.
        Owner: int
        /// Where it comes from, or goes to.
        Address: int
        Session: uint64
    }

type Connection = { Ids: SessionIds; Path: int }

[<NoComparison; NoEquality>]
type Client =
    { Ids: AdoptedIds
      Address: int
      MovesLeft: int }

[<NoComparison; NoEquality>]
type World =
    {
        Clients: Client list
        /// The server's, in the order of the clients.
        Connections: Connection list
        /// The server's connection of each address; -1: none.
        ByAddress: int list
        /// Ids that the server has drawn.
        Drawn: int
        /// Somebody on the path has altered a header, so client A uses an id that the server does not know.
        IsAltered: bool
        ToServer: Datagram list
        ToClient: Datagram list
    }

type Limits =
    {
        Addresses: int
        /// Moves of each client.
        Moves: int
        /// Ids that the server draws, those of the start among them.
        Ids: int
        /// Datagrams on the way, to and from the server; another one is lost.
        OnTheWay: int
    }

/// What a client does with a datagram's id, given the number of frames that the datagram held. A test passes a broken one.
type Adopt = AdoptedIds * SessionId * int -> AdoptedIds

let private numberOf (datagram: Datagram) =
    (datagram.Owner <<< 16) ||| (datagram.Address <<< 8) ||| int datagram.Session

let private describe (datagram: Datagram) () : string =
    let owner = if datagram.Owner = 0 then "A" else "B"
    $"{owner}, id {datagram.Session}, address {datagram.Address}"

/// Datagrams in one order, so that those of different orders are one state.
let private add (limits: Limits) (datagram: Datagram) (datagrams: Datagram list) : Datagram list =
    if datagrams.Length < limits.OnTheWay then
        List.sortBy numberOf (datagram :: datagrams)
    else
        datagrams

let private remove (datagram: Datagram) (datagrams: Datagram list) : Datagram list =
    List.removeAt (List.findIndex (fun other -> numberOf other = numberOf datagram) datagrams) datagrams

let private set index value list = List.updateAt index value list

let private clientSends (limits: Limits) (owner: int) (world: World) : World =
    let client = world.Clients[owner]

    { world with
        ToServer =
            add
                limits
                { Owner = owner
                  Address = client.Address
                  Session = client.Ids.Adopted.Value }
                world.ToServer }

let private serverSends (limits: Limits) (owner: int) (world: World) : World =
    let connection = world.Connections[owner]

    { world with
        ToClient =
            add
                limits
                { Owner = owner
                  Address = connection.Path
                  Session = (SessionRotation.outgoing connection.Ids).Value }
                world.ToClient }

/// The server draws an id and announces it by a ping.
let private rotate (limits: Limits) (owner: int) (world: World) : World =
    let connection = world.Connections[owner]

    let start =
        SessionRotation.start (connection.Ids, SessionId(uint64 (world.Drawn + 1)))

    if start.Started then
        { world with
            Connections = set owner { connection with Ids = start.Ids } world.Connections
            Drawn = world.Drawn + 1 }
        |> serverSends limits owner
    else
        world

let private owns (ids: SessionIds) (session: SessionId) =
    session = ids.Current || (session = ids.Pending && ids.Pending <> SessionId.Empty)

/// The server's tables, and its rules of who reads a datagram.
let private serverHears (limits: Limits) (datagram: Datagram) (world: World) : World =
    let session = SessionId datagram.Session
    let known = world.ByAddress[datagram.Address]

    let other = world.Connections |> List.tryFindIndex (fun one -> owns one.Ids session)

    let claim =
        if session = SessionId.Empty then
            SessionClaim.Empty
        elif known >= 0 && owns world.Connections[known].Ids session then
            SessionClaim.OfPeer
        elif other.IsSome then
            SessionClaim.OfOther
        else
            SessionClaim.Unknown

    let sender = if known >= 0 then Sender.Known else Sender.Stranger

    let read owner =
        let connection = world.Connections[owner]

        if datagram.Owner <> owner then
            None // it does not open
        else
            let receipt = SessionRotation.received (connection.Ids, session)
            let read = { connection with Ids = receipt.Ids }

            Some
                { world with
                    Connections = set owner read world.Connections }

    match DispatchRules.verdict (claim, sender, WirePayload.Expresslane, Opening.None) with
    | DispatchVerdict.Receive -> read known |> Option.defaultValue world
    | DispatchVerdict.Move ->
        let owner = other.Value

        match read owner with
        | None -> world
        | Some heard ->
            let path = heard.Connections[owner].Path

            let left =
                if heard.ByAddress[path] = owner then
                    set path -1 heard.ByAddress
                else
                    heard.ByAddress

            let moved =
                { heard with
                    ByAddress = set datagram.Address owner left
                    Connections =
                        set
                            owner
                            { heard.Connections[owner] with
                                Path = datagram.Address }
                            heard.Connections }

            if moved.Drawn < limits.Ids then
                rotate limits owner moved
            else
                moved
    | _ -> world

let private clientHears (adopt: Adopt) (datagram: Datagram) (world: World) : World =
    // Whoever is at that address gets it; who it is not for cannot open it.
    match world.Clients |> List.tryFindIndex (fun client -> client.Address = datagram.Address) with
    | None -> world
    | Some index ->
        let client = world.Clients[index]
        let frames = if index = datagram.Owner then 1 else 0

        let heard =
            { client with
                Ids = adopt (client.Ids, SessionId datagram.Session, frames) }

        { world with
            Clients = set index heard world.Clients }

let private owners = [ 0; 1 ]
let private laneOf owner = if owner = 0 then 0 else 2
let private serversLane = 1

let private moves (limits: Limits) (adopt: Adopt) (world: World) : Move<World> list =
    [ for datagram in List.distinct world.ToServer do
          let rest =
              { world with
                  ToServer = remove datagram world.ToServer }

          struct (Arrives(laneOf datagram.Owner, serversLane, describe datagram), serverHears limits datagram rest)
          struct (Lost(laneOf datagram.Owner, serversLane, describe datagram), rest)

      for datagram in List.distinct world.ToClient do
          let rest =
              { world with
                  ToClient = remove datagram world.ToClient }

          struct (Arrives(serversLane, laneOf datagram.Owner, describe datagram), clientHears adopt datagram rest)
          struct (Lost(serversLane, laneOf datagram.Owner, describe datagram), rest)

      for owner in owners do
          let client = world.Clients[owner]

          struct (At(laneOf owner, (fun () -> $"sends under id {client.Ids.Adopted.Value}")),
                  clientSends limits owner world)

          struct (At(serversLane, (fun () -> if owner = 0 then "sends to A" else "sends to B")),
                  serverSends limits owner world)

          if world.Drawn < limits.Ids then
              struct (At(serversLane, (fun () -> if owner = 0 then "another id for A" else "another id for B")),
                      rotate limits owner world)

          if client.MovesLeft > 0 then
              for address in 0 .. limits.Addresses - 1 do
                  if not (world.Clients |> List.exists (fun other -> other.Address = address)) then
                      let moved =
                          { client with
                              Address = address
                              MovesLeft = client.MovesLeft - 1 }

                      struct (At(laneOf owner, (fun () -> $"moves to address {address}")),
                              { world with
                                  Clients = set owner moved world.Clients }) ]

let private encode (encoder: Encoder) (world: World) : unit =
    for client in world.Clients do
        encoder.Add(int64 client.Ids.Adopted.Value ||| (int64 client.Address <<< 8) ||| (int64 client.MovesLeft <<< 16))

        encoder.Add(
            int64 client.Ids.Left.Value
            ||| (int64 client.Ids.LeftBefore.Value <<< 8)
            ||| (int64 client.Ids.Insisted <<< 16)
        )

    for connection in world.Connections do
        encoder.Add(
            int64 connection.Ids.Current.Value
            ||| (int64 connection.Ids.Pending.Value <<< 8)
            ||| (int64 connection.Path <<< 16)
        )

    for owner in world.ByAddress do
        encoder.Add owner

    encoder.Add world.Drawn
    encoder.Add world.IsAltered

    for datagram in world.ToServer do
        encoder.Add(numberOf datagram)

    encoder.Add -1

    for datagram in world.ToClient do
        encoder.Add(numberOf datagram)

let private wrong (_: World) (world: World) : string option =
    let ids =
        [ for connection in world.Connections do
              connection.Ids.Current.Value

              if connection.Ids.Pending <> SessionId.Empty then
                  connection.Ids.Pending.Value ]

    if (List.distinct ids).Length <> ids.Length then
        Some "an id belongs to two connections"
    elif
        List.exists
            (fun owner ->
                world.Connections[1 - owner].Ids.Current = world.Clients[owner].Ids.Adopted
                || world.Connections[1 - owner].Ids.Pending = world.Clients[owner].Ids.Adopted)
            owners
    then
        Some "a client uses the id of another one's connection"
    elif
        not world.IsAltered
        && not (List.forall (fun owner -> owns world.Connections[owner].Ids world.Clients[owner].Ids.Adopted) owners)
    then
        Some "a client uses an id that the server does not know: its next move ends the session"
    else
        None

let private isSettled (world: World) (owner: int) =
    let client, connection = world.Clients[owner], world.Connections[owner]

    connection.Path = client.Address
    && connection.Ids.Pending = SessionId.Empty
    && connection.Ids.Current = client.Ids.Adopted

/// What is on the way arrives; then the clients, which ask by a ping whether the server is there, and the server, which answers.
let private healthy (limits: Limits) (adopt: Adopt) (world: World) : Move<World> option =
    match world.ToServer, world.ToClient with
    | datagram :: rest, _ ->
        let world = { world with ToServer = rest }
        // The answer to a ping goes to where its connection is now.
        let heard = serverHears limits datagram world
        let answered = serverSends { limits with OnTheWay = 100 } datagram.Owner heard
        Some(struct (Arrives(laneOf datagram.Owner, serversLane, describe datagram), answered))
    | _, datagram :: rest ->
        let world = { world with ToClient = rest }
        Some(struct (Arrives(serversLane, laneOf datagram.Owner, describe datagram), clientHears adopt datagram world))
    | _ ->
        owners
        |> List.tryFind (fun owner -> not (isSettled world owner))
        |> Option.map (fun owner ->
            struct (At(laneOf owner, (fun () -> $"pings under id {world.Clients[owner].Ids.Adopted.Value}")),
                    clientSends limits owner world))

/// As the client does it.
let asItIs: Adopt = SessionRotation.adopt

let private unknownId = SessionId 99UL

let private start (limits: Limits) (isAltered: bool) : World =
    { Clients =
        [ for owner in owners do
              let ids = SessionRotation.adopted (SessionId(uint64 (owner + 1)))
              let isLed = isAltered && owner = 0

              { Ids =
                  if isLed then
                      SessionRotation.adopt (ids, unknownId, 1)
                  else
                      ids
                Address = owner
                // If it moved now, the server would not find it.
                MovesLeft = if isAltered then 0 else limits.Moves } ]
      Connections =
        [ for owner in owners do
              { Ids = SessionRotation.create (SessionId(uint64 (owner + 1)))
                Path = owner } ]
      ByAddress = [ for address in 0 .. limits.Addresses - 1 -> if address < 2 then address else -1 ]
      Drawn = 2
      IsAltered = isAltered
      ToServer = []
      ToClient = [] }

let model (limits: Limits) (adopt: Adopt) : Model<World> =
    { Name = "session ids and moves"
      Bound =
        $"2 clients, {limits.Addresses} addresses, {limits.Moves} moves of each, {limits.Ids} ids, {limits.OnTheWay} datagrams on the way each way; nobody has altered a header, or somebody has, and nobody moves"
      Lanes = [ "client A"; "server"; "client B" ]
      Start = [ start limits false; start limits true ]
      Moves = moves limits adopt
      Encode = encode
      Wrong = wrong
      Healthy = healthy limits adopt
      WrongAtRest = fun _ -> None
      MovesToRest = 200 }
