namespace Lightway.Tunnel.Packets;

/// <summary>
/// The inside IP packets of one connection so far, each segment of a superpacket counted as a packet. One thread adds; any
/// reads (the numbers may be a moment apart).
/// </summary>
public struct Traffic
{
    /// <summary>From the peer, delivered to the TUN.</summary>
    public long PacketsIn { get; private set; }

    /// <summary>Bytes of those.</summary>
    public long BytesIn { get; private set; }

    /// <summary>To the peer, accepted for sending.</summary>
    public long PacketsOut { get; private set; }

    /// <summary>Bytes of those.</summary>
    public long BytesOut { get; private set; }

    internal void CountIn(int bytes)
    {
        PacketsIn++;
        BytesIn += bytes;
    }

    /// <param name="bytes">Of each.</param>
    internal void CountOut(int packets, int bytes)
    {
        PacketsOut += packets;
        BytesOut += (long)packets * bytes;
    }
}
