"""Applied definitions: what they are, how they change, and the serving plan compiled from them."""
