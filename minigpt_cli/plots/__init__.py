"""Facts become matplotlib figures; who asks for one decides where it goes."""
