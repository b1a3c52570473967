namespace Lightway.Options

open System
open System.Collections.Generic

/// The steps that set a host up, and those that take it back. Nothing here changes anything.
/// Laws: of a host that is as wanted, nothing but the table is touched, which is replaced by the same; what is taken back is
/// what a set-up has changed, and only where nobody has changed it since; a table, an address or a route of others is never
/// named by a step.
[<RequireQualifiedAccess>]
module HostPlan =
    [<Literal>]
    let private TxQueueLen = 10_000 // packets that wait for the server: some ms of a fast link

    [<Literal>]
    let private Forwarding = "net.ipv4.ip_forward"

    let private none = "-"

    /// Name of the server's own table of nftables. Different devices have different ones.
    let tableOf (device: string) : string =
        let encoded =
            device
            |> String.collect (fun letter ->
                if Char.IsAsciiLetterOrDigit letter then string letter
                elif letter = '_' then "__"
                elif letter = '-' then "_m"
                else "_p") // '.', the only other one

        "lightway_" + encoded

    /// True if a name means the same to ip(8), nft(8), sysfs and a shell, whatever it is used for.
    let isPlainName (device: string) : bool =
        device <> ""
        && device <> "."
        && device <> ".."
        && device[0] <> '-'
        && device
           |> Seq.forall (fun letter ->
               Char.IsAsciiLetterOrDigit letter || letter = '_' || letter = '-' || letter = '.')

    /// The rules, as a text that `nft -f` takes as a whole or not at all. What was in the table before is replaced.
    let rules (request: HostRequest) : string =
        let table = tableOf request.Device
        let device = $"\"{request.Device}\""

        let toHost =
            if request.ClientToHost then
                []
            else
                [ "\tchain input {"
                  "\t\ttype filter hook input priority filter; policy accept;"
                  $"\t\tiifname {device} ct state established,related accept"
                  $"\t\tiifname {device} icmp type echo-request accept"
                  $"\t\tiifname {device} meta l4proto {{ tcp, udp }} th dport 53 accept"
                  $"\t\tiifname {device} drop"
                  "\t}" ]

        let toClients =
            if request.ClientToClient then
                []
            else
                [ $"\t\tiifname {device} oifname {device} drop" ]

        [ $"table inet {table}" // makes sure that there is one to delete
          $"delete table inet {table}"
          $"table inet {table} {{"
          "\tchain forward {"
          "\t\ttype filter hook forward priority filter; policy accept;"
          $"\t\tiifname {device} ip saddr != {request.Pool} drop"
          yield! toClients
          "\t}"
          yield! toHost
          if request.Nat then
              "\tchain postrouting {"
              "\t\ttype nat hook postrouting priority srcnat; policy accept;"
              $"\t\tip saddr {request.Pool} oifname != {device} masquerade"
              "\t}"
          "}"
          "" ]
        |> String.concat "\n"

    let private command (reason: string) (words: string list) : HostStep =
        { Reason = reason
          Command = Array.ofList words
          Input = "" }

    let private remark (text: string) : HostStep =
        { Reason = text
          Command = [||]
          Input = "" }

    let private change (key: string) (before: string) (since: string) : HostChange =
        { Key = key
          Before = before
          Since = since }

    /// The address with its prefix: that of the pool if it lies within, so that the kernel makes the route to the pool.
    let private addressOf (request: HostRequest) : string option =
        match request.Address with
        | null -> None
        | address when request.Pool.Contains address -> Some $"{address}/{request.Pool.PrefixLength}"
        | address -> Some $"{address}/32"

    /// Why an existing device can't be used; None: it can.
    let private unfit (request: HostRequest) (device: HostDevice) : string option =
        let name = request.Device

        let remedy =
            $"stop the server that has it, or remove it (ip link delete dev {name}), or change tun_name"

        if not device.IsTun then
            Some $"device {name} exists and is not a TUN device: change tun_name"
        elif not device.IsPersistent then
            Some $"device {name} exists and will be gone when the server that has made it ends: {remedy}"
        elif device.IsMultiQueue <> request.MultiQueue then
            let has, wants =
                if device.IsMultiQueue then
                    "several queues", "one"
                else
                    "one queue", "several"

            Some $"device {name} exists with {has}, and the server wants {wants} (workers): {remedy}"
        elif request.Owner <> null && device.Owner <> int64 request.OwnerId then
            Some $"device {name} exists and does not belong to user {request.Owner}: {remedy}"
        else
            None

    let private deviceSteps (request: HostRequest) (found: HostDevice option) : (HostStep * HostChange list) list =
        let name = request.Device

        let present, made =
            match found with
            | Some device -> device, []
            | None ->
                let queues = if request.MultiQueue then [ "multi_queue" ] else []

                let owner =
                    match request.Owner with
                    | null -> []
                    | owner -> [ "user"; owner ]

                { IsTun = true
                  IsPersistent = true
                  IsMultiQueue = request.MultiQueue
                  Owner = -1L
                  Mtu = 1500 // drivers/net/tun.c: of a new device
                  TxQueueLen = 500
                  IsUp = false
                  Addresses = []
                  HasPoolRoute = false },
                [ command
                      "The TUN device, which stays when the server ends. Its user may open it without being root."
                      ([ "ip"; "tuntap"; "add"; "dev"; name; "mode"; "tun" ] @ queues @ owner),
                  [ change "device" none name ] ]

        /// What a device has that is made here needs not be taken back: it goes with the device.
        let recorded key before since =
            if found.IsSome then [ change key before since ] else []

        [ yield! made

          if present.Mtu <> request.Mtu then
              command
                  $"Packets of {request.Mtu} bytes fit into the datagrams of the usual paths."
                  [ "ip"; "link"; "set"; "dev"; name; "mtu"; string request.Mtu ],
              recorded "mtu" (string present.Mtu) (string request.Mtu)

          if present.TxQueueLen <> TxQueueLen then
              command
                  "Bursts wait for the server instead of being lost."
                  [ "ip"; "link"; "set"; "dev"; name; "txqueuelen"; string TxQueueLen ],
              recorded "txqueuelen" (string present.TxQueueLen) (string TxQueueLen)

          match addressOf request with
          | Some address when not (List.contains address present.Addresses) ->
              command
                  "The server's own address on the device (tun_ip)."
                  [ "ip"; "address"; "add"; address; "dev"; name ],
              recorded "address" none address
          | _ -> ()

          if not present.IsUp then
              command "Only root can bring it up." [ "ip"; "link"; "set"; "dev"; name; "up" ], recorded "up" "0" "1"

          let hasRoute =
              match request.Address with
              | null -> present.HasPoolRoute
              | address -> present.HasPoolRoute || request.Pool.Contains address

          if not hasRoute then
              command
                  "The clients' network (ip_pool) is behind the device."
                  [ "ip"; "route"; "add"; string request.Pool; "dev"; name ],
              recorded "route" none (string request.Pool) ]

    let private tableReason (request: HostRequest) : string =
        let limits =
            match request.ClientToClient, request.ClientToHost with
            | false, false -> [ "they reach neither each other nor this host, but for DNS and ping" ]
            | false, true -> [ "they do not reach each other" ]
            | true, false -> [ "they do not reach this host, but for DNS and ping" ]
            | true, true -> []

        let nat =
            if request.Nat then
                "NAT for the clients"
            else
                "No NAT for the clients"

        String.Join("; ", nat :: limits) + ". One table, which is replaced as a whole."

    let private sysctl (reason: string) (name: string) (value: int64) (facts: HostFacts) =
        match facts.Sysctls.TryFind name with
        | Some present when present < value ->
            [ command reason [ "sysctl"; "-q"; "-w"; $"{name}={value}" ],
              [ change $"sysctl:{name}" (string present) (string value) ] ]
        | _ -> []

    let private groSteps (request: HostRequest) (facts: HostFacts) =
        let notDone (why: string) (device: string) =
            [ remark
                  $"Not done, as there is no {why}: rx-udp-gro-forwarding on {device}, which makes downloads over UDP cheaper.",
              [] ]

        match request.Uplink with
        | _ when not request.WantsUdpSuperpackets -> []
        | null -> notDone "default route" "the device that leads to the Internet (--uplink IF)"
        | uplink ->
            match facts.GroForwarding with
            | "off" ->
                [ command
                      "Downloads over UDP (QUIC) reach the device as superpackets, too."
                      [ "ethtool"; "-K"; uplink; "rx-udp-gro-forwarding"; "on" ],
                  [ change $"gro:{uplink}" "off" "on" ] ]
            | null when List.contains "ethtool" facts.Missing -> notDone "ethtool" uplink
            | _ -> []

    /// What keeps a plan from being carried out by this process; null: nothing.
    let obstacle (facts: HostFacts) : string | null =
        if not facts.IsRoot then
            "only root can change the host: use sudo, or --print to see what would be done"
        elif List.contains "ip" facts.Missing then
            "ip(8) is missing; run: apt-get install iproute2"
        elif List.contains "nft" facts.Missing then
            "nft(8) is missing; run: apt-get install nftables"
        elif List.contains "sysctl" facts.Missing then
            "sysctl(8) is missing; run: apt-get install procps"
        else
            null

    /// What a set-up does and changes, or why it can't be. The table comes before packets are forwarded.
    let apply (request: HostRequest, facts: HostFacts) : Result<struct (HostStep list * HostChange list), string> =
        match Option.bind (unfit request) facts.Device with
        | Some problem -> Error problem
        | None when request.Uplink <> null && not facts.IsUplinkThere ->
            Error $"device {request.Uplink} does not exist: name the one that leads to the Internet with --uplink IF"
        | None ->
            let table =
                { command (tableReason request) [ "nft"; "-f"; "-" ] with
                    Input = rules request },
                [ change "table" none (tableOf request.Device) ]

            let steps =
                [ yield! deviceSteps request facts.Device
                  table
                  yield! sysctl "This host forwards the clients' packets." Forwarding 1L facts

                  if request.SocketBuffer > 0L then
                      for name in [ "net.core.rmem_max"; "net.core.wmem_max" ] do
                          yield!
                              sysctl
                                  "A server without CAP_NET_ADMIN gets no larger socket buffers than this (udp_buffer_size)."
                                  name
                                  request.SocketBuffer
                                  facts

                  yield! groSteps request facts ]

            Ok(struct (List.map fst steps, List.collect snd steps))

    /// The record of a set-up after another one: of what both have changed, the value before the first one counts.
    let merge (earlier: HostChange list, later: HostChange list) : HostChange list =
        let before =
            earlier |> List.map (fun change -> change.Key, change.Before) |> Map.ofList

        let isLater = later |> List.map _.Key |> Set.ofList

        [ for change in earlier do
              if not (isLater.Contains change.Key) then
                  change

          for change in later do
              match before.TryFind change.Key with
              | Some value when change.Key <> "device" -> { change with Before = value }
              | _ -> change ]

    /// What concerns the whole host, which several servers may share.
    let isShared (change: HostChange) : bool =
        change.Key.StartsWith "sysctl:" || change.Key.StartsWith "gro:"

    /// The record of one set-up, to which another one's shared changes are added: values that only grow, so the smallest
    /// one is the first, and the largest one the present.
    let handOver (shared: HostChange list, theirs: HostChange list) : HostChange list =
        let number (text: string) =
            match Int64.TryParse text with
            | true, value -> value
            | _ -> 0L

        let joined (mine: HostChange) =
            match theirs |> List.tryFind (fun change -> change.Key = mine.Key) with
            | None -> mine
            | Some other ->
                { mine with
                    Before = List.minBy number [ mine.Before; other.Before ]
                    Since = List.maxBy number [ mine.Since; other.Since ] }

        let keys = shared |> List.map _.Key |> Set.ofList

        (theirs |> List.filter (fun change -> not (keys.Contains change.Key))) @ List.map joined shared

    /// What takes a set-up back: only what it has changed, and what nobody has changed since.
    let undo (device: string, record: HostChange list, facts: HostFacts) : HostStep list =
        let changes = record |> List.map (fun change -> change.Key, change) |> Map.ofList
        let isMade = changes.ContainsKey "device"

        let restored (key: string) (present: string option) (step: HostChange -> HostStep) =
            match changes.TryFind key, present with
            | Some change, Some present when change.Since = present -> [ step change ]
            | _ -> []

        let ofDevice (key: string) (value: HostDevice -> string option) (step: HostChange -> HostStep) =
            if isMade then
                []
            else
                restored key (Option.bind value facts.Device) step

        let whether (value: bool) (text: string) = if value then Some text else None

        let addressOf (found: HostDevice) =
            changes.TryFind "address"
            |> Option.bind (fun change -> whether (List.contains change.Since found.Addresses) change.Since)

        let routeOf (found: HostDevice) =
            changes.TryFind "route" |> Option.bind (fun change -> whether found.HasPoolRoute change.Since)

        let link (words: string list) =
            [ "ip"; "link"; "set"; "dev"; device ] @ words

        [ for change in record do
              if change.Key.StartsWith "gro:" then
                  yield!
                      restored change.Key (Option.ofObj facts.GroForwarding) (fun change ->
                          command
                              "As it was."
                              [ "ethtool"; "-K"; change.Key.Substring 4; "rx-udp-gro-forwarding"; change.Before ])

          for change in List.rev record do
              if change.Key.StartsWith "sysctl:" then
                  let name = change.Key.Substring 7

                  yield!
                      restored change.Key (facts.Sysctls.TryFind name |> Option.map string) (fun change ->
                          command "As it was." [ "sysctl"; "-q"; "-w"; $"{name}={change.Before}" ])

          if changes.ContainsKey "table" && facts.HasTable then
              command "The server's own table." [ "nft"; "delete"; "table"; "inet"; tableOf device ]

          yield!
              ofDevice "route" routeOf (fun change ->
                  command "The route to the clients." [ "ip"; "route"; "del"; change.Since; "dev"; device ])

          yield!
              ofDevice "address" addressOf (fun change ->
                  command "The server's address." [ "ip"; "address"; "del"; change.Since; "dev"; device ])

          yield!
              ofDevice "txqueuelen" (fun found -> Some(string found.TxQueueLen)) (fun change ->
                  command "As it was." (link [ "txqueuelen"; change.Before ]))

          yield!
              ofDevice "mtu" (fun found -> Some(string found.Mtu)) (fun change ->
                  command "As it was." (link [ "mtu"; change.Before ]))

          yield! ofDevice "up" (fun found -> whether found.IsUp "1") (fun _ -> command "As it was." (link [ "down" ]))

          match facts.Device with
          | Some found when isMade && found.IsTun ->
              command
                  "The device, with its address and its routes. A server that has it ends."
                  [ "ip"; "link"; "delete"; "dev"; device ]
          | _ -> () ]

    /// A word of a command as sh(1) reads it.
    let private quoted (word: string) : string =
        let isPlain (letter: char) =
            Char.IsAsciiLetterOrDigit letter || "-_./:=,+@%".Contains letter

        if word <> "" && Seq.forall isPlain word then
            word
        else
            "'" + word.Replace("'", "'\\''") + "'"

    /// A step as lines of a shell script that does the same.
    let lines (step: HostStep) : IReadOnlyList<string> =
        [| yield $"# {step.Reason}"

           if step.Command.Count > 0 then
               let line = step.Command |> Seq.map quoted |> String.concat " "

               if step.Input = "" then
                   yield line
               else
                   yield line + " <<'END'"
                   yield! step.Input.TrimEnd('\n').Split '\n'
                   yield "END" |]

    /// A record as lines of `key before since`.
    let write (record: HostChange list) : string =
        record
        |> List.map (fun change -> $"{change.Key} {change.Before} {change.Since}\n")
        |> String.concat ""

    /// The reverse of `write`; lines that it would not have written are left out.
    let read (text: string) : HostChange list =
        [ for line in text.Split('\n', StringSplitOptions.RemoveEmptyEntries) do
              match line.Split ' ' with
              | [| key; before; since |] ->
                  { Key = key
                    Before = before
                    Since = since }
              | _ -> () ]

    /// For C#: steps and record, or the problem.
    let tryApply
        (request: HostRequest, facts: HostFacts)
        : struct (IReadOnlyList<HostStep> * HostChange list * (string | null)) =
        match apply (request, facts) with
        | Ok(struct (steps, record)) -> struct (Array.ofList steps, record, null)
        | Error problem -> struct ([||], [], problem)
