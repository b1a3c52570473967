namespace Lightway.Tunnel.Hooks;

/// <summary>What a plugin says about a packet.</summary>
public enum PluginVerdict
{
    /// <summary>The packet goes on, as the plugin left it.</summary>
    Accept = 0,

    /// <summary>The packet goes nowhere; it is counted.</summary>
    Drop,
}
