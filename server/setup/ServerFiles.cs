using Lightway.Hosting;
using Lightway.Options;

namespace Lightway.Server.Setup;

/// <summary>The files a server trusts.</summary>
internal static class ServerFiles
{
    /// <summary>Checks every file that the options name.</summary>
    /// <exception cref="ConfigurationException">A file is missing or open to others.</exception>
    public static void Require(ServerOptions options)
    {
        FileChecks.Require("config_file", options.ConfigFile, FileRule.ReadableByOthers);
        FileChecks.Require("server_cert", options.ServerCert, FileRule.ReadableByOthers);
        FileChecks.Require("server_key", options.ServerKey, FileRule.OwnerOnly);
        FileChecks.Require("user_db", options.UserDb, FileRule.OwnerOnly);
        if (options.IpMapFile is { } map)
        {
            FileChecks.Require("ip_map", map, FileRule.ReadableByOthers);
        }
    }

    /// <summary>The parts of the pool for local addresses, from the options or from their file.</summary>
    /// <exception cref="ConfigurationException">The file can't be read, or has no such map.</exception>
    public static IReadOnlyList<IpMapEntry> ReadIpMap(ServerOptions options)
    {
        if (options.IpMapFile is not { } file)
        {
            return [.. options.IpMap];
        }
        try
        {
            var (entries, error) = IpMap.parse(file, File.ReadAllText(file));
            error ??= IpMap.problem(options.IpPool, entries) is { } problem ? $"ip_map: \"{file}\": {problem}" : null;
            return error is null ? [.. entries] : throw new ConfigurationException(error);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigurationException($"ip_map: \"{file}\": {error.Message}");
        }
    }
}
