// Cuts the superpackets of a capture into segments and coalesces the segments again.
//   recut IN.pcap SEGMENTS.pcap OUT.pcap [MTU]    MTU: bytes of the longest segment, 1500 if not given
//   recut example FILE.pcap                       writes packets to try it on

using Lightway.Samples.Recut;
using Lightway.Segmenter;

if (args is ["example", var example])
{
    Pcap.Write(example, Example.Packets());
    return 0;
}

var mtu = 1500;
if (args.Length is not (3 or 4) || (args.Length == 4 && (!int.TryParse(args[3], out mtu) || mtu is < 68 or > 65535)))
{
    Console.Error.WriteLine(
        "usage: recut IN.pcap SEGMENTS.pcap OUT.pcap [MTU, 68 to 65535]\n       recut example FILE.pcap"
    );
    return 2;
}

try
{
    var packets = Pcap.Read(args[0]);
    var recutter = new Recutter(mtu);
    var segments = new List<byte[]>();
    for (var i = 0; i < packets.Count; i++)
    {
        var reason = recutter.Cut(packets[i], segments);
        if (reason != DropReason.None)
        {
            Console.Error.WriteLine($"packet {i + 1} is left out: {reason}");
        }
    }
    Pcap.Write(args[1], segments);
    var coalesced = Recutter.Coalesce(segments);
    Pcap.Write(args[2], coalesced);
    Console.WriteLine($"{packets.Count} packets, {segments.Count} segments, {coalesced.Count} packets");
    return 0;
}
catch (Exception error) when (error is IOException or InvalidDataException or UnauthorizedAccessException)
{
    Console.Error.WriteLine(error.Message);
    return 1;
}
