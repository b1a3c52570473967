namespace Lightway.Options

open System
open System.Globalization
open System.Net
open System.Net.Sockets
open System.Security.Cryptography
open System.Text
open System.Text.RegularExpressions

/// A server that the kill switch lets datagrams to.
[<NoComparison>]
type AllowedServer =
    {
        /// As configured, host:port.
        Name: string
        /// Tcp or Udp.
        Transport: TransportMode
        EndPoint: IPEndPoint
    }

/// What the kill switch lets out.
[<NoComparison; NoEquality>]
type FirewallWishes =
    {
        /// Name of the TUN device.
        Device: string
        Servers: AllowedServer seq
        /// The user of the client's process (meta skuid): no other user's packets to the server pass.
        User: uint32
        /// SO_MARK of the tunnel's own packets; 0 for none.
        Mark: uint32
        /// Local networks stay reachable, as in route mode lan.
        AllowsLocal: bool
        AllowsIPv6: bool
    }

/// The kill switch: a table of nftables that lets out nothing but what the tunnel needs. Here it is text (nft(8)).
[<RequireQualifiedAccess>]
module FirewallPlan =
    /// Every table of a client begins like this; the name of its device follows.
    [<Literal>]
    let Prefix = "lightway_client_"

    /// Name of the table for a device. What an identifier of nft(8) may not contain becomes `_` and two hexadecimal digits.
    let tableOf (device: string) : string =
        let letter (character: char) =
            if Char.IsAsciiLetterOrDigit character then
                string character
            else
                $"_{int character:x2}"

        Prefix + String.collect letter device

    /// The device of a table of a client; null if the table is somebody else's. Law: deviceOf (tableOf device) = device.
    let deviceOf (table: string) : string | null =
        if table.StartsWith(Prefix, StringComparison.Ordinal) then
            Regex.Replace(
                table.Substring Prefix.Length,
                "_([0-9a-f]{2})",
                fun found -> string (char (Byte.Parse(found.Groups[1].Value, NumberStyles.HexNumber)))
            )
        else
            null

    /// Tables of clients in the output of `nft list tables`.
    let tablesIn (listing: string) : string list =
        [ for found in Regex.Matches(listing, $@"^table inet ({Prefix}\S*)\s*$", RegexOptions.Multiline) do
              found.Groups[1].Value ]

    /// What marks the addresses of one server in the table: of its name, 16 hexadecimal digits of the SHA-256.
    let private tagOf (name: string) =
        (Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes name))).Substring(0, 16)

    /// The addresses that a table remembers for a server, from the output of `nft list table`. While the kill switch is
    /// closed, no resolver can be asked.
    let remembered (listing: string, name: string) : IPAddress list =
        let tag = tagOf name

        [ for found in Regex.Matches(listing, @"([0-9a-fA-F.:]+) \. (?:tcp|udp) \. [0-9]+ comment ""([0-9a-f]{16})""") do
              match IPAddress.TryParse found.Groups[1].Value with
              | true, NonNull address when found.Groups[2].Value = tag -> address
              | _ -> () ]

    let private join (items: string seq) = String.Join(", ", items)

    let private networks (list: IPNetwork seq) = join (Seq.map string list)

    let private setOf (name: string) (kind: string) (family: AddressFamily) (servers: AllowedServer seq) =
        let elements =
            [ for server in servers do
                  if server.EndPoint.AddressFamily = family then
                      let transport =
                          if server.Transport = TransportMode.Tcp then
                              "tcp"
                          else
                              "udp"

                      $"{server.EndPoint.Address} . {transport} . {server.EndPoint.Port} comment \"{tagOf server.Name}\"" ]
            |> List.distinct

        [ $"    set {name} {{"
          $"        type {kind} . inet_proto . inet_service"
          if not elements.IsEmpty then
              $"        elements = {{ {join elements} }}"
          "    }" ]

    /// Removal of tables, as input for `nft -f -`.
    let removal (tables: string seq) : string =
        String.concat "" [ for table in tables -> $"delete table inet {table}\n" ]

    /// The input for `nft -f -` that closes the kill switch in one transaction, in the place of the client's tables that are
    /// there. It is about what leaves this machine, its own packets and those that it forwards; what comes in is free.
    let closing (wishes: FirewallWishes, present: string seq) : string =
        let table = tableOf wishes.Device

        let ours =
            $"meta skuid {wishes.User}" + (if wishes.Mark = 0u then "" else $" meta mark {wishes.Mark}")

        let local4 = networks RoutePlan.localNetworks

        let local6 =
            networks (Seq.append RoutePlan.localNetworks6 [ IPNetwork.Parse "fe80::/10" ])

        let lines =
            [ $"table inet {table} {{"
              yield! setOf "servers4" "ipv4_addr" AddressFamily.InterNetwork wishes.Servers
              yield! setOf "servers6" "ipv6_addr" AddressFamily.InterNetworkV6 wishes.Servers
              "    chain output {"
              "        type filter hook output priority filter; policy drop;"
              $"        oifname {{ \"lo\", \"{wishes.Device}\" }} accept"
              $"        {ours} ip daddr . meta l4proto . th dport @servers4 accept"
              $"        {ours} ip6 daddr . meta l4proto . th dport @servers6 accept"
              // DHCP (RFC 2131), DHCPv6 (RFC 8415)
              "        udp sport 68 udp dport 67 accept"
              "        ip6 daddr { fe80::/10, ff02::1:2 } udp sport 546 udp dport 547 accept"
              // Neighbour discovery (RFC 4861 §3), and the membership of its groups (RFC 3810), without which switches drop it
              "        icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept"
              if wishes.AllowsLocal then
                  $"        ip daddr {{ {local4} }} accept"
                  $"        ip6 daddr {{ {local6}, ff02::/16 }} accept"
              if wishes.AllowsIPv6 then
                  "        meta nfproto ipv6 accept"
              // So that programs fail at once, and do not wait; the sender is this machine.
              "        counter reject with icmpx admin-prohibited"
              "    }"
              "    chain forward {"
              "        type filter hook forward priority filter; policy drop;"
              $"        oifname \"{wishes.Device}\" accept"
              $"        iifname \"{wishes.Device}\" accept"
              if wishes.AllowsLocal then
                  $"        ip saddr {{ {local4} }} ip daddr {{ {local4} }} accept"
                  $"        ip6 saddr {{ {local6} }} ip6 daddr {{ {local6} }} accept"
              if wishes.AllowsIPv6 then
                  "        meta nfproto ipv6 accept"
              "        counter"
              "    }"
              "}" ]

        removal present + String.concat "\n" lines + "\n"
