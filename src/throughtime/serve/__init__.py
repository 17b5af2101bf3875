"""A server of streams whose memory survives: sessions as logs, stepped together, kept in a store."""
