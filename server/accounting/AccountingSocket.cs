using System.Net.Sockets;

namespace Lightway.Server.Accounting;

/// <summary>
/// A Unix datagram socket of somebody who reads accounting: each line is a datagram, so that none arrives in part. The reader
/// may come later, and may start again.
/// </summary>
internal sealed class AccountingSocket : IAccountingSink
{
    private const int WaitMs = 1_000; // for a reader that is slow
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified)
    {
        SendTimeout = WaitMs,
    };
    private readonly UnixDomainSocketEndPoint _reader;

    /// <exception cref="IOException">The path is too long for the address of a socket.</exception>
    public AccountingSocket(string path)
    {
        try
        {
            _reader = new UnixDomainSocketEndPoint(path);
        }
        catch (ArgumentOutOfRangeException)
        {
            throw new IOException("the path of a Unix socket has at most 107 bytes");
        }
    }

    public void Write(ReadOnlySpan<byte> line)
    {
        try
        {
            _socket.SendTo(line, SocketFlags.None, _reader);
        }
        catch (SocketException error)
        {
            throw new IOException(error.Message, error);
        }
    }

    public void Reopen() { }

    public void Dispose() => _socket.Dispose();
}
