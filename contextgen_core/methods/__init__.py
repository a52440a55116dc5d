"""The methods: for each one file with its choice of conditions, position ids, visibility rules and blocks."""
