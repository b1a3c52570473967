namespace Lightway.Hosting;

/// <summary>A setting or a file that the server cannot start with. The message is one line for the operator.</summary>
public sealed class ConfigurationException(string message) : Exception(message);
