using System.Globalization;

namespace Lightway.Tunnel.Udp;

/// <summary>Finds the process that has a port, for an error text: /proc/net/{udp,tcp} and /proc/PID/fd (proc(5)).</summary>
internal static class PortHolder
{
    private const int LocalAddressAt = 1; // fields of a line
    private const int InodeAt = 9;

    /// <param name="protocol">udp or tcp.</param>
    /// <returns>Name and number of the process; null: none, or this process may not see it.</returns>
    public static string? Find(string protocol, int port)
    {
        try
        {
            var inodes = new[] { $"/proc/self/net/{protocol}", $"/proc/self/net/{protocol}6" }
                .Where(File.Exists)
                .SelectMany(File.ReadLines)
                .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
                .Where(fields => fields.Length > InodeAt && PortOf(fields[LocalAddressAt]) == port)
                .Select(fields => $"socket:[{fields[InodeAt]}]")
                .ToHashSet();
            return inodes.Count == 0 ? null
                : Directory.EnumerateDirectories("/proc").FirstOrDefault(HasOne) is { } found ? Describe(found)
                : null;
            bool HasOne(string process) =>
                int.TryParse(Path.GetFileName(process), CultureInfo.InvariantCulture, out _)
                && HasSocket(process, inodes);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return null; // it is only for a text
        }
    }

    /// <summary>Port of an address such as 0100007F:6C2A; -1 for the heading.</summary>
    private static int PortOf(string address) =>
        int.TryParse(
            address.AsSpan(address.LastIndexOf(':') + 1),
            NumberStyles.HexNumber,
            CultureInfo.InvariantCulture,
            out var port
        )
            ? port
            : -1;

    private static bool HasSocket(string process, HashSet<string> inodes)
    {
        try
        {
            return Directory
                .EnumerateFiles(Path.Combine(process, "fd"))
                .Any(file =>
                    File.ResolveLinkTarget(file, returnFinalTarget: false) is { } target
                    && inodes.Contains(Path.GetFileName(target.FullName))
                );
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return false; // another user's, or it has ended
        }
    }

    private static string Describe(string process) =>
        $"{File.ReadAllText(Path.Combine(process, "comm")).Trim()}, process {Path.GetFileName(process)},";
}
