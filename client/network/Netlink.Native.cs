using System.ComponentModel;
using System.Runtime.InteropServices;
using System.Text;

namespace Lightway.Client.Network;

/// <summary>A netlink socket of the kernel's routing (rtnetlink(7)), in the network namespace of the process. One thread.</summary>
internal sealed unsafe partial class Netlink : IDisposable
{
    /// <summary>Bytes; the kernel fills buffers of a dump up to this size (Documentation/userspace-api/netlink/intro.rst).</summary>
    public const int BufferSize = 32768;

    // linux/rtnetlink.h: groups of notifications
    public const uint RTMGRP_LINK = 0x1;
    public const uint RTMGRP_IPV4_IFADDR = 0x10;
    public const uint RTMGRP_IPV4_ROUTE = 0x40;
    public const uint RTMGRP_IPV6_IFADDR = 0x100;
    public const uint RTMGRP_IPV6_ROUTE = 0x400;

    // asm-generic/errno*.h
    public const int EPERM = 1;
    public const int ESRCH = 3;
    public const int EACCES = 13;
    public const int EEXIST = 17;
    public const int ENODEV = 19;
    public const int EOPNOTSUPP = 95;
    public const int EAFNOSUPPORT = 97;
    private const int EINTR = 4;
    private const int EAGAIN = 11;
    private const int ENOBUFS = 105;

    // linux/socket.h, linux/netlink.h, bits/socket_type.h
    private const int AF_NETLINK = 16;
    private const int NETLINK_ROUTE = 0;
    private const int SOCK_RAW = 3;
    private const int SOCK_CLOEXEC = 0x80000;
    private const int SOL_SOCKET = 1;
    private const int SO_RCVTIMEO = 20;
    private const int MSG_DONTWAIT = 0x40;
    private const int MSG_TRUNC = 0x20;
    private const short POLLIN = 1;
    private const int EFD_CLOEXEC = 0x80000;
    private const int IF_NAMESIZE = 16;
    private const int AnswerSeconds = 5; // the kernel answers at once; this is for a kernel that does not
    private readonly int _fd;
    private readonly int _wake; // eventfd

    /// <param name="groups">Notifications to receive; 0 for a socket that asks.</param>
    /// <exception cref="IOException">The system does not allow the socket.</exception>
    public Netlink(uint groups)
    {
        _fd = Checked(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), "socket AF_NETLINK");
        _wake = eventfd(0, EFD_CLOEXEC);
        try
        {
            _ = Checked(_wake, "eventfd");
            var address = new Address { Family = AF_NETLINK, Groups = groups };
            _ = Checked(bind(_fd, &address, (uint)sizeof(Address)), "bind AF_NETLINK");
            var timeout = stackalloc long[2] { AnswerSeconds, 0 }; // struct timeval
            _ = Checked(setsockopt(_fd, SOL_SOCKET, SO_RCVTIMEO, timeout, 2 * sizeof(long)), "setsockopt SO_RCVTIMEO");
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Sends a request: one or more whole messages.</summary>
    /// <exception cref="IOException">The kernel does not take it.</exception>
    public void Send(ReadOnlySpan<byte> request)
    {
        fixed (byte* bytes = request)
        {
            nint sent;
            do
            {
                sent = send(_fd, bytes, (nuint)request.Length, 0);
            } while (sent < 0 && Marshal.GetLastPInvokeError() == EINTR);
            _ = Checked((int)sent, "send AF_NETLINK");
        }
    }

    /// <summary>Waits for a datagram of the kernel: one or more messages. Returns its length.</summary>
    /// <exception cref="IOException">None came, or it was longer than the buffer.</exception>
    public int Receive(Span<byte> buffer)
    {
        fixed (byte* bytes = buffer)
        {
            nint length;
            do
            {
                length = recv(_fd, bytes, (nuint)buffer.Length, MSG_TRUNC);
            } while (length < 0 && Marshal.GetLastPInvokeError() == EINTR);
            _ = Checked((int)length, "recv AF_NETLINK");
            return length <= buffer.Length
                ? (int)length
                : throw new IOException($"recv AF_NETLINK: an answer of {length} bytes, too long");
        }
    }

    /// <summary>Waits for a notification, or for <see cref="Wake"/>, which gives false from then on.</summary>
    /// <param name="timeoutMs">-1 waits without end.</param>
    public bool WaitForNews(int timeoutMs)
    {
        var waiting = stackalloc Waiting[2]
        {
            new() { Fd = _wake, Events = POLLIN },
            new() { Fd = _fd, Events = POLLIN },
        };
        while (poll(waiting, 2, timeoutMs) < 0 && Marshal.GetLastPInvokeError() == EINTR)
        {
            // a signal: wait again
        }
        return waiting[0].Events != 0 && waiting[0].Returned == 0;
    }

    /// <summary>Waits as long as nobody calls <see cref="Wake"/>. False: somebody did.</summary>
    public bool Pause(int milliseconds)
    {
        var waiting = new Waiting { Fd = _wake, Events = POLLIN };
        return poll(&waiting, 1, milliseconds) == 0;
    }

    /// <summary>Throws away the notifications that wait: what they are about is asked for anyway.</summary>
    public void Drain()
    {
        var buffer = stackalloc byte[64];
        // ENOBUFS means that some were lost, which is as good as received.
        while (recv(_fd, buffer, 64, MSG_DONTWAIT) >= 0 || Marshal.GetLastPInvokeError() is ENOBUFS or EINTR) { }
    }

    /// <summary>Ends the waiting, for good. Any thread.</summary>
    public void Wake()
    {
        var one = 1UL;
        _ = write(_wake, &one, sizeof(ulong));
    }

    public void Dispose()
    {
        _ = close(_fd);
        if (_wake >= 0)
        {
            _ = close(_wake);
        }
    }

    /// <summary>Index of an interface; 0 if there is none of this name.</summary>
    public static int IndexOf(string device) => (int)if_nametoindex(device);

    /// <summary>Name of an interface; null if there is none of this index.</summary>
    public static string? NameOf(int index)
    {
        var name = stackalloc byte[IF_NAMESIZE];
        return if_indextoname((uint)index, name) == null
            ? null
            : Encoding.UTF8.GetString(MemoryMarshal.CreateReadOnlySpanFromNullTerminated(name));
    }

    /// <summary>An error of the kernel, in words.</summary>
    public static string Describe(int errno) => $"{new Win32Exception(errno).Message} (errno {errno})";

    private static int Checked(int result, string call)
    {
        if (result >= 0)
        {
            return result;
        }
        var errno = Marshal.GetLastPInvokeError();
        var why = errno == EAGAIN ? $"the kernel did not answer within {AnswerSeconds} s" : Describe(errno);
        throw new IOException($"{call}: {why}; routes need it: allow it, or set route_mode: noexec");
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int socket(int domain, int type, int protocol);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int bind(int fd, Address* address, uint length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setsockopt(int fd, int level, int option, void* value, uint length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint send(int fd, void* buffer, nuint length, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint recv(int fd, void* buffer, nuint length, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int poll(Waiting* waiting, nuint count, int timeoutMs);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int eventfd(uint value, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint write(int fd, void* buffer, nuint length);

    [LibraryImport("libc")]
    private static partial int close(int fd);

    [LibraryImport("libc", StringMarshalling = StringMarshalling.Utf8)]
    private static partial uint if_nametoindex(string name);

    [LibraryImport("libc")]
    private static partial byte* if_indextoname(uint index, byte* name);

    /// <summary>struct sockaddr_nl (linux/netlink.h); port id 0 lets the kernel choose.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Address
    {
        public ushort Family;
        private readonly ushort _padding;
        private readonly uint _portId;
        public uint Groups;
    }

    /// <summary>struct pollfd (poll(2)).</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Waiting
    {
        public int Fd;
        public short Events;
        public short Returned;
    }
}
